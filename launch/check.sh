# shellcheck shell=bash
# Sourced by the launchers: a run that would die at its start is refused before it is queued.

# check_main PYTHON ARGUMENT...: main.py's own verdict on its flags and settings.  Run it in the
# checkout.  Ends the launcher with main.py's one line; nothing is started or written.
check_main() {
  local python=$1
  shift
  PYTHONDONTWRITEBYTECODE=1 "$python" main.py --check "$@" </dev/null >/dev/null || exit 2
}

# own_python: the checkout's interpreter or that of CR_JAX_PYTHON, or nothing where there is none.
own_python() {
  if [[ -n ${CR_JAX_PYTHON-} ]]; then
    printf '%s' "$CR_JAX_PYTHON"
  elif [[ -x .venv/bin/python ]]; then
    printf '%s' .venv/bin/python
  else
    printf 'note: no .venv/bin/python here; the settings are checked on the other side only\n' >&2
  fi
}

# joined_by_equals ARGUMENT NAME...: refuses an option of the launcher's whose value was cut off by
# a blank; it would be handed on to main.py.
joined_by_equals() {
  local argument=$1 name
  shift
  for name in "$@"; do
    [[ $argument != "--$name" ]] ||
      fail "$argument and its value are one word: write $argument=VALUE"
  done
}
