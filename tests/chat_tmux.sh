#!/bin/sh
# `easyfirst chat` in a real terminal: tmux. Typed lines with wide characters, Ctrl-C at the prompt
# and during an answer, Ctrl-Z, a window that gets narrower, the history of another run, a terminal
# that cannot move its cursor, and what is left afterwards.
#   chat_tmux.sh PROGRAM    exit status 0, 1, or 77 where tmux is not installed
command -v tmux >/dev/null 2>&1 || { echo "chat_tmux: skipped, tmux is not installed"; exit 77; }
program=$(realpath "${1:-build/easyfirst}")
here=$(dirname "$(realpath "$0")")
image=$here/../data/bundled/images/tractor.jpg
folder=$(mktemp -d)
export LC_ALL=C.UTF-8 OMP_NUM_THREADS=1 XDG_STATE_HOME="$folder/state"
unset TMUX NO_COLOR EASYFIRST_MODEL
ln -s "$program" "$folder/ef"
ln -s "$image" "$folder/a.jpg"
ln -s "$here/../data/bundled/model" "$folder/model"
echo "set -s exit-empty off" > "$folder/conf"
server="tmux -S $folder/socket -f $folder/conf"
trap '$server kill-server 2>/dev/null; rm -rf "$folder"' EXIT
# The first thing that is wrong ends the test.
wrong() { echo "chat_tmux: $*"; $server capture-pane -p | sed 's/^/  |/'; exit 1; }

# wait_for TEXT [COUNT]: until so many lines of the screen have it.
wait_for() {
    i=0
    while [ "$($server capture-pane -p | grep -c -F -e "$1")" -lt "${2:-1}" ]; do
        i=$((i + 1))
        [ $i -gt 200 ] && wrong "\"$1\" did not come"
        sleep 0.05
    done
}
# last_line TEXT: until it is the last line that is not empty.
last_line() {
    i=0
    until [ "$($server capture-pane -p | sed 's/ *$//' | grep -v '^$' | tail -n 1)" = "$1" ]; do
        i=$((i + 1))
        [ $i -gt 200 ] && wrong "\"$1\" is not the last line"
        sleep 0.05
    done
}
left() { last_line "%" && send "echo LE''FT" Enter; wait_for LEFT; }
send() { $server send-keys "$@"; }
begin() { # columns
    $server new-session -d -x "$1" -y 20 "cd $folder && PS1='% ' exec sh"
    last_line "%"
}
end() {
    send "stty -a | grep -c -w -e '-icanon' -e '-echo' -e '-isig'; echo DO''NE" Enter
    wait_for DONE
    $server capture-pane -p | grep -q '^0 *$' || wrong "the terminal is raw"
    [ "$($server display -p '#{cursor_flag}')" = 1 ] || wrong "the cursor is hidden"
    $server kill-session
}

answer=$("$program" ask -q -m "$folder/model" "$image" "What is this?")
begin 60
send "./ef chat -q -m model a.jpg" Enter
last_line ">"
send "What is this?" Enter
wait_for "$answer" && last_line ">"
send "garbage" C-c                                       # the line is dropped
wait_for "garbage^C" && last_line ">"
send Up && last_line "> What is this?"                   # and is not in the history
send C-a C-k "日本 Größex" && last_line "> 日本 Größex"
send BSpace BSpace BSpace && last_line "> 日本 Grö"      # whole characters
send C-z && wait_for "Stopped"
send "fg" Enter && last_line "> 日本 Grö"
$server resize-window -x 30
sleep 0.2
send "n" && last_line "> 日本 Grön"
[ "$($server capture-pane -p | grep -c -F "> 日本 Grön")" = 1 ] || wrong "the line is drawn twice"
send C-a C-k "/length 3" Enter && last_line ">"
send "/show" Enter && wait_for "$answer" 1 && last_line ">"
send C-d && left
end

# The history of that run; an answer that takes long is drawn, and cancelled.
begin 50
send "./ef chat -q -m model --length 60 --steps 1000000 --no-canvas-cache --temperature 1 a.jpg" Enter
last_line ">"
send Up && last_line "> /show"
send Up && last_line "> /length 3"
send Up Enter && wait_for "__"                           # "What is this?"
send C-c && wait_for "cancelled" && last_line ">"
[ "$($server capture-pane -p | grep -c "__")" = 0 ] || wrong "the drawing is left"
send "again" Enter && wait_for "__"
send C-z && wait_for "Stopped" && send "fg" Enter && wait_for "a.jpg" 3
send C-c && wait_for "cancelled" 2
send "/quit" Enter && left
end
[ "$(stat -c %a "$folder/state/easyfirst/chat_history")" = 600 ] || wrong "others may read the history"
[ "$(stat -c %a "$folder/state/easyfirst")" = 700 ] || wrong "others may read the history's folder"

# Without cursor movement: no editing, no drawing, Ctrl-C cancels all the same.
begin 50
send "TERM=dumb ./ef chat -q -m model a.jpg" Enter
last_line ">"
send "What is this?" Enter && wait_for "$answer" && last_line ">"
send C-d && left
end
begin 50
send "TERM=dumb ./ef chat -q -m model --length 60 --steps 1000000 --no-canvas-cache a.jpg" Enter
last_line ">"
send "What is this?" Enter && sleep 0.3
send C-c && wait_for "cancelled" && last_line ">"
send "/quit" Enter && left
end

# `ask` with images only, on a terminal, is a chat.
begin 50
send "./ef ask -q -m model a.jpg" Enter
last_line ">"
send "What is this?" Enter && wait_for "$answer" && last_line ">"
send C-d && left
end

echo "chat_tmux: 5 conversations: typing, cancelling, stopping: nothing left behind"
