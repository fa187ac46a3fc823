#!/usr/bin/env python3
"""Lists the tests that needed a retry, each with its first failure: flaky.py JUNIT.XML"""

import sys
import xml.etree.ElementTree as ElementTree


def first_words(failure):
    lines = (failure.text or failure.get("message") or "").partition("stack backtrace:")[0].splitlines()
    return [line.strip() for line in lines if line.strip()][:6]


def main(path):
    try:
        cases = ElementTree.parse(path).iter("testcase")
    except FileNotFoundError:
        return
    flaky = [(case, case.findall("flakyFailure") + case.findall("flakyError")) for case in cases]
    flaky = [(case, failures) for case, failures in flaky if failures]
    if not flaky:
        return
    print(f"\n{len(flaky)} flaky: passed only on retry, to be fixed next:")
    for case, failures in flaky:
        print(f"  {case.get('classname')} {case.get('name')}")
        for line in first_words(failures[0]):
            print(f"      {line}")


main(sys.argv[1])
