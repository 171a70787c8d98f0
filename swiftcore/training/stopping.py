"""How a training process ends early: when it is asked to."""

import signal


class StopRequest:
    """Notes SIGTERM, so that the training can write a checkpoint before it ends."""

    def __init__(self) -> None:
        self.requested = False

    def listen(self) -> None:
        """Take SIGTERM from now on; a second one has the system's default effect."""
        signal.signal(signal.SIGTERM, self._note)

    def agree(self) -> None:
        """Hear of what other processes were asked; alone there are none."""

    def _note(self, signum: int, frame: object) -> None:
        self.requested = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
