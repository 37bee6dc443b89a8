"""Addresses as they may be shown."""

import re


def shown(text: str) -> str:
    """A text without the user names and passwords of the addresses in it."""
    return re.sub(r"(?<=://)[^/?#\s]*@", "", text)
