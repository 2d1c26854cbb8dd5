"""The user's own pictures and sentences: files of annotation tools in, the REFER layout out, and predictions back."""
