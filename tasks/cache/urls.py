"""Addresses as they may be shown."""

import re


def without_credentials(text: str) -> str:
    """A text without the user names and passwords of the addresses in it."""
    return re.sub(r"(?<=://)[^/?#\s]*@", "", text)
