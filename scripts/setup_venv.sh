#!/bin/sh
# Makes the virtual environment that `make` works in, or brings it up to date. Says nothing where there is nothing to do.
#
# usage: setup_venv.sh FOLDER PYTHON gpu|cpu base|dev
#
# Stamps in FOLDER, for `base` and for `dev`, tell what was installed from which pyproject.toml and requirements.lock.
# They are written last, so that an install that was cut off is begun anew. PYTHON=python3 stands for any Python that is
# new enough; whatever else PYTHON says is taken at its word. THEN is said to come after an install.
set -eu
venv=$1 wanted=$2 extra=$3 level=$4

fail() {
    echo "$*" >&2
    exit 1
}

version_of() { # prints the version of the interpreter $1; fails where it does not run or is too old
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2]); sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    for python in "$wanted" python3.12 python3.13 python3.11 python3.14; do
        version=$(version_of "$python") && return
        [ "$wanted" = python3 ] || break
    done
    version=$(version_of "$wanted" || :)
    fail "rtmo_optuna needs Python 3.11 or newer, and $wanted is ${version:-not found}:" \
        "install a newer one, or name it with make PYTHON=/path/to/python3."
}

sources=$(cat pyproject.toml requirements.lock | cksum)
stamp=$venv/.installed-$level
if [ "$(cat "$stamp" 2>/dev/null)" = "$extra $sources" ] && "$venv/bin/python" -c '' 2>/dev/null; then
    exit 0
fi

takes="about a minute"
[ "$extra" = cpu ] || takes="a few minutes: CUDA's libraries are over 1 GB"
foretell() { # says once what is to come
    [ -z "${THEN:-}" ] || printf "First an environment is made, once (%s). Then\n%s\n" "$takes" "$THEN"
    THEN=
}
if ! version=$(version_of "$venv/bin/python"); then
    # Nothing is ever removed from a folder that is not known to be a virtual environment.
    if [ -d "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ] && [ -n "$(ls -A "$venv")" ]; then
        fail "$venv is there and is no virtual environment: remove it, or name another folder with make VENV=FOLDER."
    fi
    find_python
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python (Python $version) cannot make virtual environments: install what it lacks" \
            "(on Debian and Ubuntu: apt install python$version-venv), or name another one with make PYTHON=..."
    foretell
    echo "Creating $venv with Python $version ..."
    "$python" -m venv --clear "$venv"
fi

tools=
[ "$level" = base ] || tools=,$level
rivals=
[ "$extra" = gpu ] || rivals=,openvino # of which there is not a wheel for every system
extras=$extra$rivals$tools
foretell
echo "Installing rtmo_optuna with the extras $extras into $venv ($takes) ..."
[ ! -t 1 ] || width=$(($(tput cols 2>/dev/null || echo 80) - 12))
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

tick() { # says every few seconds what pip is at: in place on a terminal, else a line each ten seconds
    waited=0
    while sleep "$1" >/dev/null 2>&1; do
        waited=$((waited + $1))
        line=$(awk 'NF && !/^WARNING/ { last = $0 } END { print last }' "$log")
        printf "$2" "$waited" "$line"
    done
}

install() { # has pip install the extras $1; what it says is kept in a file: all but errors is nothing to act on
    if [ -t 1 ]; then tick 1 "\r%5s s  %-$width.${width}s" & else tick 10 "%5s s  %s\n" & fi
    ticker=$!
    trap 'kill "$ticker" 2>/dev/null || :' EXIT
    status=0
    pip install -c requirements.lock -e ".[$1]" >"$log" 2>&1 || status=$?
    kill "$ticker" 2>/dev/null || :
    [ ! -t 1 ] || printf "\r%$((width + 9))s\r" ""
    return $status
}

# Both kinds of ONNX Runtime fill one folder: the second one to come would leave a mixture.
other=onnxruntime-gpu
[ "$extra" = cpu ] || other=onnxruntime
log=$venv/install.log
rm -f "$venv"/.installed-*
if pip show "$other" >/dev/null 2>&1; then
    pip -q uninstall -y onnxruntime onnxruntime-gpu
fi
install "$extras" ||
    { [ "$rivals" ] && echo "Trying without OpenVINO ..." && install "$extra$tools"; } ||
    fail "$(awk '/^ *(ERROR|error)/' "$log")" "The install into $venv failed; the same command tries again." \
        "All that pip said is in $log."
for done in base "$level"; do
    echo "$extra $sources" >"$venv/.installed-$done"
done
