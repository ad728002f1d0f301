"""Text and images from files as they are published: JSON lines, C4's shards, folders of classes."""

from lazyneuron.data.image_folder import ImageFolder, image_folder
from lazyneuron.data.json_lines import c4_documents, json_texts

__all__ = ["ImageFolder", "c4_documents", "image_folder", "json_texts"]
