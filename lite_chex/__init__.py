"""LiteChex: label chest X-ray reports with a small LLM fine-tuned on one GPU. A research tool, not a medical device."""

import logging
import os

__version__ = "0.1.0"

# Reports may hold patient data: libraries below us send nothing. They read these when they are first imported.
for _switch, _value in {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "UNSLOTH_DISABLE_STATISTICS": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TOKENIZERS_PARALLELISM": "false",
}.items():
    os.environ.setdefault(_switch, _value)

# bitsandbytes warns at import that an optional package is missing; nothing a user has to act on.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
