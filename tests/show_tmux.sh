#!/bin/sh
# `easyfirst show` in a real terminal: tmux, at three widths, live with the bundled model and again
# from trace files. Checks every screen while it plays, and what is left afterwards.
#   show_tmux.sh PROGRAM [quick]   exit status 0, 1, or 77 where tmux is not installed; quick: each
#                                  text at one of the widths only
command -v tmux >/dev/null 2>&1 || { echo "show_tmux: skipped, tmux is not installed"; exit 77; }
program=$(realpath "${1:-build/easyfirst}")
here=$(dirname "$(realpath "$0")")
model=$here/../data/bundled/model
folder=$(mktemp -d)
export LC_ALL=C.UTF-8 OMP_NUM_THREADS=1
unset TMUX NO_COLOR EASYFIRST_MODEL
echo "set -s exit-empty off" > "$folder/conf" # one server for all sessions
server="tmux -S $folder/socket -f $folder/conf"
trap '$server kill-server 2>/dev/null; rm -rf "$folder"' EXIT
failed=0
wrong() { echo "show_tmux: $*"; $server capture-pane -p | sed 's/^/  |/'; failed=1; }

# wait_for TEXT: until the screen has it.
wait_for() {
    i=0
    while ! $server capture-pane -p | grep -q -F -e "$1"; do
        i=$((i + 1))
        [ $i -gt 200 ] && { wrong "\"$1\" did not come"; return 1; }
        sleep 0.05
    done
}

# wait_gone TEXT: until the screen has it no more.
wait_gone() {
    i=0
    while $server capture-pane -p | grep -q -F -e "$1"; do
        i=$((i + 1))
        [ $i -gt 200 ] && { wrong "\"$1\" did not go"; return 1; }
        sleep 0.05
    done
}

# A terminal of $1 columns with a shell, in the folder; its first line is UP.
begin() {
    $server new-session -d -x "$1" -y 24 "cd $folder && PS1= exec sh"
    $server send-keys "clear; echo U''P" Enter
    wait_for UP
}
end() { $server kill-session; }

# left_behind: the cursor is shown, keys are echoed, the shell answers in a line of its own.
left_behind() {
    wait_for "READY" || return
    [ "$($server display -p '#{cursor_flag}')" = 1 ] || wrong "$1: the cursor is hidden"
    $server send-keys "stty -a | grep -c -w -e '-icanon' -e '-echo'; echo DO''NE" Enter
    wait_for "DONE" || return
    [ "$($server capture-pane -p | grep -v '^$' | tail -n 2 | head -n 1)" = 0 ] || wrong "$1: the terminal is raw"
}

# $1: name, $2: columns, $3: how it is started, $4: the answer.
watch() {
    begin "$2"
    printf '%s\necho READY\n' "$3" > "$folder/run.sh"
    $server send-keys ". ./run.sh" Enter
    frames=0 i=0
    while [ $i -lt 300 ]; do
        i=$((i + 1))
        $server capture-pane -p > "$folder/screen"
        grep -q READY "$folder/screen" && break
        # One status line: every frame overwrites the one before.
        [ "$(grep -c -E '[0-9]/[0-9]+ ' "$folder/screen")" -le 1 ] || { wrong "$1: two frames"; break; }
        grep -q -E '[0-9]/[0-9]+ ' "$folder/screen" && frames=$((frames + 1))
        sleep 0.03
    done
    [ $frames -gt 2 ] || wrong "$1: only $frames frames were seen"
    left_behind "$1"
    got=$($server capture-pane -p -J | sed -n '3p' | sed 's/ *$//')
    [ "$got" = "$4" ] || wrong "$1 at $2 columns: \"$got\" is left, not \"$4\""
    end
}

cell() { # piece, id
    if [ "$1" = _ ]; then
        printf '{"id":0,"piece":"<mask>","score":null,"masked":true'
    else
        printf '{"id":%d,"piece":"%s","score":-0.3,"masked":false' "$2" "$1"
    fi
    printf ',"proposal":0,"proposal_piece":"<mask>","proposal_score":-1}'
}

# trace FILE ANSWER PIECE...: one more piece at each step, from the right.
trace() {
    file=$1 answer=$2
    shift 2
    n=$#
    {
        printf '{"prompt":"q","answer":"%s","strategy":"ar","seed":0,"prompt_tokens":1,"length":%d,"steps":%d,' \
            "$answer" $n $n
        printf '"hypotheses":[{"text":"%s","length":%d,"sample":0,"score":-1,"evaluations":1}],"trace":[' \
            "$answer" $n
        for step in $(seq $n); do
            [ "$step" = 1 ] || printf ,
            printf '{"step":%d,"evaluated":true,"cells":[' "$step"
            place=0
            for piece; do
                place=$((place + 1))
                [ $place = 1 ] || printf ,
                [ $place -gt $((n - step)) ] || piece=_
                cell "$piece" $place
            done
            printf ']}'
        done
        printf ']}\n'
    } > "$folder/$file"
}

umlauts="Die Größe der schönen Straße für Fußgänger über Österreich"
chinese="图片的底部有一辆红色的拖拉机旁边还有两架飞机"
emoji="🙂 und 🐕 sehen 🚜 in 日本 🏠"
trace umlauts.json "$umlauts" ▁Die ▁Größe ▁der ▁schönen ▁Straße ▁für ▁Fußgänger ▁über ▁Österreich
trace chinese.json "$chinese" 图片 的 底部 有 一辆 红色的 拖拉机 旁边 还有 两架飞机
trace emoji.json "$emoji" ▁🙂 ▁und ▁🐕 ▁sehen ▁🚜 ▁in ▁日本 ▁🏠
question="Describe this picture." ask="-q --length 7" # an answer of several tokens, of any model
image=$here/../data/bundled/images/tractor.jpg
answer=$($program ask $ask --sure-threshold 0 -m "$model" "$image" "$question")
runs=0
for columns in 20 40 100; do
    for name in umlauts chinese emoji live; do
        case $2:$columns:$name in
        quick:20:umlauts | quick:40:chinese | quick:100:emoji | quick:20:live | :*) ;;
        *) continue ;;
        esac
        runs=$((runs + 1))
        command="$program show --from $name.json --speed 12"
        case $name in
        umlauts) want=$umlauts ;;
        chinese) want=$chinese ;;
        emoji) want=$emoji ;;
        live) want=$answer command="$program show $ask -m $model --speed 6 $image '$question'" ;;
        esac
        watch "$name" "$columns" "$command" "$want"
    done
done

# Quitting, and Ctrl-C, in the middle; and a window that changes while it plays.
for how in q C-c; do
    begin 40
    # Ctrl-C ends a list of commands in the shell, too: READY is another one.
    $server send-keys "$program show --from umlauts.json --step" Enter
    wait_for "0/9"
    $server send-keys n n
    wait_for "step 2/9"
    $server resize-window -x 23
    sleep 0.3
    $server resize-window -x 60
    sleep 0.3
    $server send-keys n
    wait_for "step 3/9"
    $server send-keys $how
    sleep 0.3
    $server send-keys "echo REA''DY" Enter
    left_behind "$how"
    case $how in
    q) ! $server capture-pane -p | grep -q "step " || wrong "$how: more than the answer is left" ;;
    *) [ "$($server capture-pane -p | grep -c "step ")" = 1 ] || wrong "$how: not one status line is left" ;;
    esac
    $server capture-pane -p | grep -q "Fußgänger über Österreich" || wrong "$how: the text is gone"
    end
done
# Ctrl-Z: the shell has its terminal; fg: everything is drawn again.
begin 60
$server send-keys "$program show --from umlauts.json --step" Enter
wait_for "0/9"
$server send-keys n n
wait_for "step 2/9"
$server send-keys C-z
wait_for "Stopped"
$server send-keys "echo REA''DY" Enter
left_behind "Ctrl-Z"
$server send-keys "clear" Enter
wait_gone "step 2/9"
$server send-keys "fg" Enter
wait_for "step 2/9"
[ "$($server display -p '#{cursor_flag}')" = 0 ] || wrong "fg: the cursor is shown"
$server send-keys n
wait_for "step 3/9"
$server send-keys q
wait_gone "step 3/9"
sleep 0.3
$server send-keys "echo REA''DY" Enter
left_behind "fg"
$server capture-pane -p | grep -q "Fußgänger über Österreich" || wrong "fg: the answer is missing"
end
[ $failed = 0 ] && echo "show_tmux: $runs runs at 3 widths, quitting, Ctrl-C, Ctrl-Z: nothing left behind"
exit $failed
