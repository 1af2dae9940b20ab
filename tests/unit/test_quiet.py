"""What a library prints is kept from stdout, by many threads at once."""

from __future__ import annotations

import sys
import threading

from sise.sources.quiet import silent


def test_stdout_is_back_whatever_the_order_in_which_threads_leave(capsys):
    stdout, entered, leave = sys.stdout, threading.Barrier(3), [threading.Event(), threading.Event()]

    def fetch(n):
        with silent() as said:
            entered.wait(10)
            print(f"login {n}")
            leave[n].wait(10)
            assert "login" in said.getvalue()

    threads = [threading.Thread(target=fetch, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    entered.wait(10)
    for n in (0, 1):  # the first one in is the first one out
        leave[n].set()
        threads[n].join(10)
    assert sys.stdout is stdout
    print("one line of JSON")
    assert capsys.readouterr().out == "one line of JSON\n"
