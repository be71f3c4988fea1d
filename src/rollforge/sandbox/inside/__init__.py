"""What runs on the other side of the wall: standard library only, loaded by path in an interpreter of its own."""
