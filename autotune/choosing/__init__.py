"""Choosing anew from a finished run, with nothing measured again."""
