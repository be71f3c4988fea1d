"""One environment inside a trainer's own loop: TRL, verl, OpenRLHF. NeMo RL's way is `rollforge.nemo.live`."""
