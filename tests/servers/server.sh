# What the scripts of this directory share; each sources it with its own arguments, a command and
# a directory. Sets `command`; `dir`, where the server's files are; `cache`, where fetched things stay.
command=${1:?start or stop}
mkdir -p "${2:?a directory}"
dir=$(cd "$2" && pwd)
cache=${KUBEWITNESS_SERVERS:-${XDG_CACHE_HOME:-$HOME/.cache}/kubewitness-servers}

# authority NAME: DIR/NAME.pem, a certificate that signs others, and its key.
authority() {
    openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj "/CN=$1" \
        -keyout "$dir/$1.key" -out "$dir/$1.pem" 2>/dev/null
}

# certificates NAME...: an authority `ca`, and of it for each name DIR/NAME.key and DIR/NAME.crt,
# good for localhost and 127.0.0.1.
certificates() {
    [ -e "$dir/.certified" ] && return
    local name
    authority ca
    for name in "$@"; do
        openssl req -newkey rsa:2048 -nodes -subj "/CN=$name" \
            -keyout "$dir/$name.key" -out "$dir/$name.csr" 2>/dev/null
        openssl x509 -req -in "$dir/$name.csr" -days 30 -CA "$dir/ca.pem" -CAkey "$dir/ca.key" \
            -CAcreateserial -out "$dir/$name.crt" \
            -extfile <(echo "subjectAltName=DNS:localhost,IP:127.0.0.1") 2>/dev/null
    done
    touch "$dir/.certified"
}

# from_pypi PACKAGE VERSION: installs it in an environment of its own, once; sets `home` to that.
from_pypi() {
    home=$cache/$1-$2
    [ -e "$home/.complete" ] && return
    python3 -m venv "$home"
    "$home/bin/pip" install -q "$1==$2" >&2
    touch "$home/.complete"
}

# until_true LOG COMMAND...: waits until the command succeeds; where the server ends first, or takes
# two minutes, shows how its log ends and fails.
until_true() {
    local log=$1
    shift
    for _ in $(seq 240); do
        if "$@" >/dev/null 2>&1; then return; fi
        kill -0 "$(cat "$dir/pid")" 2>/dev/null || break
        sleep 0.5
    done
    tail -20 "$log" >&2
    return 1
}

listens() { (echo >"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# end: asks the server to end, and waits until it has.
end() {
    local pid
    pid=$(cat "$dir/pid")
    kill "$pid" || return 0
    for _ in $(seq 60); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.5
    done
    kill -9 "$pid"
}

# Shows how a script is used: the comment that it begins with.
usage() {
    sed -n '2,/^set/{/^#/p}' "$0"
    exit 2
}
