"""Reads a JSON list of bodies and says for each what pywa makes of it: the name of its type, or why there is none.

pywa is that of the Lambda function in examples/python-lambda, on PYTHONPATH.
"""

import json
import logging
import sys
import warnings

from pywa import WhatsApp


class Reason(logging.Handler):
    """What pywa logs where it cannot construct an update, which it never raises."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.last: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.last = repr(record.exc_info[1])


warnings.simplefilter("ignore")
reason = Reason()
logging.getLogger("pywa").addHandler(reason)
logging.getLogger("pywa").propagate = False
whatsapp = WhatsApp(filter_updates=False, validate_updates=False, skip_duplicate_updates=False)
found: list[str] = []
for on in (
    whatsapp.on_message,
    whatsapp.on_message_status,
    whatsapp.on_callback_button,
    whatsapp.on_callback_selection,
    whatsapp.on_template_status_update,
    whatsapp.on_account_update,
):
    on(lambda _, update: found.append(type(update).__name__))


def made_of(body: str) -> str:
    found.clear()
    reason.last = None
    try:
        whatsapp.webhook_update_handler(body.encode())
    except KeyError as error:
        return f"raises {error!r}"
    return ", ".join(found) or reason.last or "no type"


print(json.dumps([made_of(body) for body in json.load(sys.stdin)]))
