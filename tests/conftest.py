"""What all tests start from."""

import signal

# Where a shell began the tests in the background, it had them ignore Ctrl-C, and so would the programs they start and stop.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
