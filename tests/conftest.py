"""What all tests start from."""

import signal

from hypothesis import HealthCheck, settings

# Where a shell began the tests in the background, it had them ignore Ctrl-C, and so would the programs they start and stop.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes is the machine's affair.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
