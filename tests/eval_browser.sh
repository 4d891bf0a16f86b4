#!/bin/sh
# Pages of evaluations in a real browser (tests/eval_browser.py), where Debian's chromium and
# chromium-driver are installed; elsewhere one skipped test. With a folder as argument screenshots
# are left there.
# shellcheck source=tests/browser.sh
. "$(dirname "$0")/browser.sh"
exec python3 -B "$(dirname "$0")/eval_browser.py" "$chromium" "$driver" "$@"
