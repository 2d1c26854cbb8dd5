"""Text that came from files, made safe for a terminal and for a report."""


def printable(text: str) -> str:
    r"""The text with its control characters written out, as `\x1b`; line ends and tabs stay.

    C0, DEL and C1 would be obeyed by a terminal; a lone surrogate, from a file name that is no UTF-8, cannot be encoded.
    """
    if text.isprintable():  # the common case, without a loop in Python
        return text
    return "".join(_written(letter) for letter in text)


def _written(letter: str) -> str:
    code = ord(letter)
    if letter in "\n\t" or not (code < 0x20 or 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000):
        return letter
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def for_template(value: object) -> object:
    """For templates: text without control characters; markup, which has been made here, and other values as they are."""
    return printable(value) if type(value) is str else value
