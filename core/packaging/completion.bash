# Completion of parry's commands and options; what there is, is asked of --help.
_parry() {
  local word=${COMP_WORDS[COMP_CWORD]} program=${COMP_WORDS[0]} words
  COMPREPLY=()
  if [ "$COMP_CWORD" = 1 ]; then
    words=$("$program" --help 2>/dev/null | sed -n 's/^  \([a-z]*\) .*/\1/p')
  elif [[ $word == -* ]]; then
    words=$("$program" help "${COMP_WORDS[1]}" 2>/dev/null | grep -oE '^  +(-., )?--[a-z-]+' | grep -oE -- '--[a-z-]+')
  else
    compopt -o default
    return
  fi
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}
complete -F _parry parry
