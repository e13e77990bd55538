"""The one exception that users see: a sentence about something they can change."""


class UserError(Exception):
    """Wrong input, recipe or machine; the command line prints it and exits with code 1.

    The message is one clear sentence that names the file, row, column, key or flag and says what
    would be right. It never contains report text.
    """
