"""Frames in, from any reader, streamed; scores, documents and plots out, written whole or not at all."""

from quests_zenn.io.frames import Frame, as_frame, frame_properties, iterate_frames, read_atoms, read_frames
from quests_zenn.io.outputs import check_output, write_json, write_scored
from quests_zenn.io.store import Store, open_store

__all__ = [
    "Frame",
    "Store",
    "as_frame",
    "check_output",
    "frame_properties",
    "iterate_frames",
    "open_store",
    "read_atoms",
    "read_frames",
    "write_json",
    "write_scored",
]
