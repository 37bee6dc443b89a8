"""Addresses as they may be shown."""

import re


def without_credentials(text: str) -> str:
    """A text without the user names and passwords of the addresses in it."""
    return re.sub(r"(?<=://)[^/?#\s]*@", "", text)


def without_secrets(text: str) -> str:
    """A text without what the addresses in it let one in by: names, passwords, and what follows a question mark."""
    return re.sub(r"(://[^\s?#'\"]*)[?#][^\s'\"]*", r"\1", without_credentials(text))
