#!/bin/sh
# The page in a real browser (tests/page_browser.py), where Debian's chromium and chromium-driver
# are installed; elsewhere one skipped test. With a folder as argument screenshots are left there.
# shellcheck source=tests/browser.sh
. "$(dirname "$0")/browser.sh"
exec python3 -B "$(dirname "$0")/page_browser.py" "$chromium" "$driver" "$@"
