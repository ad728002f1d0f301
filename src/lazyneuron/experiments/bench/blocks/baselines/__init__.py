"""The alternatives that certified execution is compared with, one file each."""
