"""What a release is made with, beside the wheel: the lock of its requirements, and the list of what is in it."""
