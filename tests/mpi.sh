# shellcheck shell=sh
# What tests of several processes begin with: $program, an empty $folder, results as TAP, mpirun. To be read by them with
# `.`, from the root of the sources; without mpirun they end here, with a counted skip.
# shellcheck disable=SC2034 # the tests use it
program=${EASYFIRST:-build/easyfirst}
[ -w /dev/shm ] && TMPDIR=${TMPDIR:-/dev/shm} && export TMPDIR
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
number=0
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
# Never over a network; ranks share cores.
export OMPI_MCA_btl=self,vader OMPI_MCA_btl_vader_single_copy_mechanism=none

# result STATUS NAME: one line of TAP.
result() {
    number=$((number + 1))
    if [ "$1" = 0 ]; then echo "ok $number - $2"; else echo "not ok $number - $2"; fi
}

if ! command -v mpirun >/dev/null 2>&1; then
    echo "ok 1 # SKIP no mpirun here (Debian: openmpi-bin)"
    echo "1..1"
    exit 0
fi

# ranks N COMMAND...: with N processes, within a minute.
ranks() {
    n=$1
    shift
    timeout -k 5 60 mpirun --allow-run-as-root --oversubscribe -n "$n" "$@"
}
