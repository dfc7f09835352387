"""Asks a predictor over HTTP; imports neither torch nor transformers.

from ivcp.client import Client

with Client("https://actions.example.com") as client:
    print(client.predict("clip.mp4").label_name)
"""

from ivcp.client.client import EVENT_NAMES, Client, TimelineEvent
from ivcp.client.errors import ApiError

__all__ = ["EVENT_NAMES", "ApiError", "Client", "TimelineEvent"]
