"""Frames in, from any reader, streamed; scores, documents and plots out, written whole or not at all."""

from quests_zenn.io.frames import Frame, as_frame, frame_properties, iterate_frames, read_atoms, read_frames
from quests_zenn.io.outputs import check_output, write_json, write_scored

__all__ = [
    "Frame",
    "as_frame",
    "check_output",
    "frame_properties",
    "iterate_frames",
    "read_atoms",
    "read_frames",
    "write_json",
    "write_scored",
]
