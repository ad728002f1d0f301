"""Export to OpenVINO: the operator's bytes, its extension, the conversion, and the folder."""
