/** What a shell needs to ask `vmmig` for completions: a few lines each; the knowledge stays in the table of verbs. */

export const shells = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof shells)[number];

const bash = `# vmmig completion for bash: source <(vmmig completion bash)
_vmmig() {
  local value description
  COMPREPLY=()
  while IFS=$'\\t' read -r value description; do
    if [[ $value == :files ]]; then
      compopt -o default
    else
      COMPREPLY+=("$value")
    fi
  done < <(vmmig __complete -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _vmmig vmmig
`;

const zsh = `#compdef vmmig
# vmmig completion for zsh: source <(vmmig completion zsh), or save as _vmmig in a directory of $fpath
_vmmig() {
  local line value
  local -a lines described
  lines=("\${(@f)$(vmmig __complete -- "\${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ $lines[1] == :files ]]; then
    _files
    return
  fi
  for line in $lines; do
    value=\${line%%$'\\t'*}
    if [[ $line == *$'\\t'?* ]]; then
      described+=("\${value//:/\\\\:}:\${line#*$'\\t'}")
    else
      described+=("\${value//:/\\\\:}")
    fi
  done
  _describe -V vmmig described
}
if [[ $funcstack[1] == _vmmig ]]; then
  _vmmig "$@"
else
  compdef _vmmig vmmig
fi
`;

const fish = `# vmmig completion for fish: vmmig completion fish | source
function __vmmig_complete
    set -l current (commandline -ct)
    set -l words (commandline -opc) "$current"
    set -l lines (vmmig __complete -- $words[2..-1] 2>/dev/null)
    if test "$lines[1]" = :files
        __fish_complete_path "$current"
        return
    end
    printf '%s\\n' $lines
end
complete -c vmmig -f -a '(__vmmig_complete)'
`;

export const completionScripts: Readonly<Record<Shell, string>> = { bash, zsh, fish };
