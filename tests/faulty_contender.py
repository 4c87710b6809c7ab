"""The process of a contender with a planted fault, named on the command line."""

import os
import signal
import sys
import time

from difflab.study import contender


right_calls, right_gradient = contender.calls, contender.gradient_of


def slower_by_a_fifth(prepared, *arguments):
    found = right_calls(prepared, *arguments)
    return {name: slowed(call, 0.2) for name, call in found.items()}


def slowed(call, share):
    """A call that takes the processor for longer, by a share of its usual time."""
    extra = share * min(contender.sample(call, 10) for _ in range(20))

    def run():
        found = call()
        until = time.thread_time() + extra
        while time.thread_time() < until:
            pass
        return found

    return run


def off_by_a_thousandth(prepared, found):
    return right_gradient(prepared, found) * 1.001


def wrong_last_sample(prepared, found):
    """Right where few samples are certified, wrong at the whole batch."""
    gradient = right_gradient(prepared, found)
    wrong_last_sample.calls += 1
    return gradient * (1.1 if wrong_last_sample.calls == 1 else 1.0)


wrong_last_sample.calls = 0


def hang(*_):
    time.sleep(1000)


def crash(*_):
    os.kill(os.getpid(), signal.SIGSEGV)


def fail(*_):
    raise ZeroDivisionError("planted")


def leave(*_):
    sys.exit("planted last words")


def chatter(prepared, *arguments):
    print("libraries print what they like")
    return right_calls(prepared, *arguments)


FAULTS = {
    "slow": ("calls", slower_by_a_fifth),
    "wrong": ("gradient_of", off_by_a_thousandth),
    "wrong at the whole batch": ("gradient_of", wrong_last_sample),
    "hangs": ("calls", hang),
    "crashes": ("calls", crash),
    "fails": ("calls", fail),
    "leaves": ("calls", leave),
    "prints": ("calls", chatter),
    "hangs when timed": ("repeats", hang),
    "none": ("calls", right_calls),
}


if __name__ == "__main__":
    setattr(contender, *FAULTS[sys.argv[1]])
    contender.main()
