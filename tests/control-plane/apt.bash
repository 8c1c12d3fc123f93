# Packages of Debian without installing them: an apt state of one's own, derived from what this machine's apt is told.
# Sourced by `assets` beside this file and by tests/tools/assets.

# apt_sources: one line per enabled binary source of this machine's apt: URI, suite, components, keys, separated by
# tabs. Both formats: deb822 (*.sources) and one line each (*.list). A key given in the file itself has its newlines as \037.
apt_sources() {
  local d=/etc/apt/ file files=()
  eval "$(apt-config shell d Dir::Etc/d)"
  while IFS= read -r file; do files+=("$file"); done < <(
    find "$d/sources.list" "$d/sources.list.d" \( -name '*.list' -o -name '*.sources' \) 2>/dev/null | sort
  )
  awk '
    function option(text, key,   parts, n, i) {
      n = split(text, parts, /[ \t]+/)
      for (i = 1; i <= n; i++) if (index(parts[i], key "=") == 1) return substr(parts[i], length(key) + 2)
      return ""
    }
    function stanza(   uris, suites, i, j, keys) {
      if ((" " f["types"] " ") ~ /[ \t]deb[ \t]/ && tolower(f["enabled"]) !~ /^(no|false|0)$/) {
        keys = f["signed-by"]
        if (keys !~ /BEGIN PGP/) gsub(/[ \t\037]+/, ",", keys)
        gsub(/\037/, " ", f["uris"]); gsub(/\037/, " ", f["suites"]); gsub(/\037/, " ", f["components"])
        split(f["uris"], uris, " "); split(f["suites"], suites, " ")
        for (i = 1; i in uris; i++) for (j = 1; j in suites; j++)
          print uris[i] "\t" suites[j] "\t" f["components"] "\t" keys
      }
      split("", f); field = ""
    }
    FNR == 1 { stanza(); deb822 = FILENAME ~ /\.sources$/ }
    !deb822 {
      sub(/#.*/, ""); opts = ""
      if ($1 != "deb") next
      if (match($0, /\[[^]]*\]/)) { # not a [ inside a cdrom: URI, which is of no use here anyhow
        opts = substr($0, RSTART + 1, RLENGTH - 2); $0 = substr($0, 1, RSTART - 1) " " substr($0, RSTART + RLENGTH)
      }
      uri = $2; suite = $3; $1 = $2 = $3 = ""; gsub(/^ +/, "")
      print uri "\t" suite "\t" $0 "\t" option(opts, "signed-by")
      next
    }
    /^#/ { next }
    /^[ \t]*$/ { stanza(); next }
    /^[ \t]/ { line = $0; sub(/^[ \t]/, "", line); if (line == ".") line = ""; f[field] = f[field] "\037" line; next }
    { i = index($0, ":"); field = tolower(substr($0, 1, i - 1)); line = substr($0, i + 1); gsub(/^[ \t]+|[ \t]+$/, "", line); f[field] = line }
    END { stanza() }
  ' /dev/null ${files[@]+"${files[@]}"}
}

# mirrors: this machine's sources that may be a Debian mirror, the most likely first: "URI<tab>keys".
mirrors() {
  local codename
  if [ -n "${KONDUCTOR_DEBIAN_MIRROR:-}" ]; then
    printf '%s\t\n' "$KONDUCTOR_DEBIAN_MIRROR"
    return 0
  fi
  codename=$(. /etc/os-release 2>/dev/null && echo "${VERSION_CODENAME:-}")
  apt_sources | awk -F '\t' -v codename="$codename" '
    BEGIN { n = split("bullseye bookworm trixie forky duke sid oldoldstable oldstable stable testing unstable", s, " ")
            for (i = 1; i <= n; i++) debian[s[i]] = 1 }
    $1 ~ /^cdrom:/ || !($2 in debian) || (" " $3 " ") !~ / main / || seen[$1]++ { next }
    { rank = 2 - ($1 ~ /debian\/?$/) - ($2 == codename); print rank "\t" $1 "\t" $4 }' | sort -s -n -k1,1 | cut -f2-
}

# apt_state DIR: a private apt state. Its sources and keys are DIR/sources.list and DIR/keys, or without such a list the
# machine's own. What the machine says about proxies and the like stays in force, its hooks do not run.
apt_state() {
  mkdir -p "$1/lists/partial" "$1/cache/archives/partial" "$1/keys"
  : >"$1/status"
  {
    [ ! -f /etc/apt/apt.conf ] || echo '#include "/etc/apt/apt.conf";'
    echo '#clear APT::Update::Pre-Invoke;'
    echo '#clear APT::Update::Post-Invoke;'
    echo '#clear APT::Update::Post-Invoke-Success;'
    echo "Dir::State::lists \"$1/lists\";"
    echo "Dir::Cache \"$1/cache\";"
    echo "APT::Sandbox::User \"$(id -un)\";"
    echo 'APT::Get::List-Cleanup "false";'
    echo 'APT::Update::Error-Mode "any";'
    echo 'Acquire::Retries "2";'
    if [ -f "$1/sources.list" ]; then
      echo "Dir::State::status \"$1/status\";"
      echo "Dir::Etc::sourcelist \"$1/sources.list\";"
      echo 'Dir::Etc::sourceparts "/dev/null";'
      echo "Dir::Etc::trusted \"/dev/null\";"
      echo "Dir::Etc::trustedparts \"$1/keys\";"
      echo 'Dir::Etc::preferences "/dev/null";'
      echo 'Dir::Etc::preferencesparts "/dev/null";'
    fi
  } >"$1/main.conf"
  echo "Dir::Etc::main \"$1/main.conf\";" >"$1/apt.conf" # read first; main.conf is read after apt.conf.d
}

apt_do() { # apt_do DIR COMMAND…: apt-get in that private state, its downloads land in DIR/got
  mkdir -p "$1/got" && cd "$1/got" && shift && APT_CONFIG=${PWD%/got}/apt.conf apt-get -q -y "$@"
}

# keys KEYS DIR: the keys a source is signed with, and Debian's own, which include the older releases'.
keys() {
  local key n=0
  rm -f "$2"/*
  for key in /usr/share/keyrings/debian-archive-keyring.gpg $(case $1 in */*) tr ',' ' ' <<<"$1" ;; esac); do
    if [ -r "$key" ]; then cp "$key" "$2/$((n += 1))-${key##*/}"; fi
  done
  case $1 in
    *'BEGIN PGP'*) tr '\037' '\n' <<<"$1" | sed '/BEGIN PGP/,$!d' >"$2/given.asc" ;;
    '') find /etc/apt/trusted.gpg /etc/apt/trusted.gpg.d -maxdepth 1 -type f -exec cp {} "$2" \; 2>/dev/null || true ;;
  esac
}
