"""Text, tensors and images from files as they are published: JSON lines, C4's shards, folders of classes.

For training loops and for ``--data``. A reader takes a path, reads what is asked for and no more, and says in one
sentence what is wrong with a file; it knows no model. A new kind of file is a new file here.
"""

from lazyneuron.data.image_folder import ImageFolder, image_folder
from lazyneuron.data.json_lines import c4_documents, json_texts

__all__ = ["ImageFolder", "c4_documents", "image_folder", "json_texts"]
