"""Scalars for TensorBoard, written by the calling thread.

`torch.utils.tensorboard` writes from a thread of its own, where a full disk becomes a stack trace.
"""

import socket
import time
from pathlib import Path


class Curves:
    """An event file in `folder`, which is made; from `start_step` on, curves of older files are hidden.

    Raises:
        OSError: the folder or the file cannot be written.
    """

    def __init__(self, folder: Path, start_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        now = time.time()
        self.file = (folder / f"events.out.tfevents.{now:.6f}.{socket.gethostname()}").open("wb")
        self.records = RecordWriter(self.file)
        self._write(Event(wall_time=now, file_version="brain.Event:2"))
        if start_step:
            session = SessionLog(status=SessionLog.START)
            self._write(Event(wall_time=now, step=start_step, session_log=session))

    def add(self, step: int, values: dict[str, float]) -> None:
        """Add one point to each curve."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=points)))

    def _write(self, event: object) -> None:
        self.records.write(event.SerializeToString())  # type: ignore[attr-defined]
        self.file.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()
