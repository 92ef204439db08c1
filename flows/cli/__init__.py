"""The commands of `fed-rag`, a module for each subject."""
