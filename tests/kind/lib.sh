# shellcheck shell=bash
# What the scripts share: programs that are there, an engine that answers, and the base that images stand on.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${ZUE_KIND_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/zue-kind}
bin=$cache/bin
export PATH=$bin:$PATH
# The images are made with what every builder understands; the classic one also runs where buildx is missing.
export DOCKER_BUILDKIT=0
mkdir -p "$bin"

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
fail() { say "$*"; exit 1; }

# Makes sure that each COMMAND=PACKAGE is there, from Debian's packages if need be.
programs() { # COMMAND=PACKAGE...
  local pair missing=()
  for pair; do command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}"); done
  [ ${#missing[@]} -eq 0 ] && return
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    fail "missing: ${missing[*]}; install them (this script can, as root on Debian or Ubuntu)"
  fi
  say "installing ${missing[*]}"
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } \
    </dev/null >"$cache/apt.log" 2>&1 || fail "apt-get failed; see $cache/apt.log"
}

# Makes sure that COMMANDS of one of Debian's packages are there, without installing it: a service of it would start.
unpacked() { # PACKAGE COMMAND...
  local folder package=$1 each missing=
  shift
  for each; do command -v "$each" >/dev/null || missing=$each; done
  [ -n "$missing" ] || return 0
  command -v apt-get >/dev/null || fail "missing: $missing; install $package"
  say "unpacking $package"
  folder=$(mktemp -d "$cache/$package.XXXXXX")
  (
    cd "$folder"
    # The lists may never have been fetched.
    apt-get download "$package" || { apt-get -o DPkg::Lock::Timeout=600 update && apt-get download "$package"; }
    dpkg-deb -x ./*.deb .
  ) </dev/null >"$cache/apt.log" 2>&1 || fail "$package cannot be had; see $cache/apt.log"
  for each; do mv "$folder/usr/bin/$each" "$bin/$each"; done
  rm -rf "$folder"
}

left() { # PIDFILE PROGRAM
  [ ! -f "$1" ] || [ "$(cat "/proc/$(cat "$1")/comm" 2>/dev/null)" = "$2" ] || rm -f "$1"
}

# A container engine: the one that answers, or else a dockerd started here.
engine() {
  if command -v docker >/dev/null && docker info >/dev/null 2>&1; then return; fi
  if [ "$(uname -s)" != Linux ] || [ "$(id -u)" != 0 ]; then
    fail "no container engine answers; start Docker (only root on Linux can have it started from here)"
  fi
  programs dockerd=docker.io docker=docker.io iptables=iptables ip=iproute2
  local options=() pid
  # Bit 24 of the bounding set: without CAP_SYS_RESOURCE, plain runc refuses privileged containers.
  if ! ((16#$(awk '/^CapBnd/ {print $2}' /proc/self/status) >> 24 & 1)); then
    programs jq=jq
    options=(--add-runtime "capable=$here/runc-capable" --default-runtime capable)
  fi
  # What a killed engine left; another process may have its number by now.
  left /var/run/docker.pid dockerd
  left /var/run/docker/containerd/containerd.pid containerd
  say "starting dockerd (its log: $cache/dockerd.log)"
  setsid dockerd "${options[@]}" >"$cache/dockerd.log" 2>&1 </dev/null &
  pid=$!
  for _ in {1..150}; do
    docker info >/dev/null 2>&1 && return
    kill -0 "$pid" 2>/dev/null || break
    sleep .2
  done
  tail -5 "$cache/dockerd.log" >&2
  fail "dockerd did not start; see $cache/dockerd.log"
}

present() { docker image inspect "$1" >/dev/null 2>&1; } # IMAGE
pulled() { say "pulling $1"; timeout 600 docker pull -q "$1" >/dev/null 2>"$cache/pull.log"; } # IMAGE

# Prints the name of a slim Debian bookworm image: the official one, or where nothing can be pulled one of that kind.
runtime() {
  local official=debian:bookworm-slim own=zue-runtime:bookworm
  if present $official; then echo $official; return; fi
  if present $own; then echo $own; return; fi
  if pulled $official; then echo $official; return; fi
  say "$official cannot be pulled; making $own"
  programs debootstrap=debootstrap
  local root
  root=$(mktemp -d "$cache/runtime.XXXXXX")
  debootstrap --variant=minbase bookworm "$root" </dev/null >"$cache/debootstrap.log" 2>&1 ||
    fail "debootstrap failed; see $cache/debootstrap.log"
  tar -C "$root" -c --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' --exclude='./usr/share/doc/*' \
    --exclude='./usr/share/info/*' --exclude='./usr/share/locale/*' --exclude='./usr/share/man/*' . |
    docker import - $own >/dev/null
  rm -rf "$root"
  echo $own
}
