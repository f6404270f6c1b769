/** Who may import whom: the module table of ARCHITECTURE.md as rules. */
const modules = [
  'cli',
  'migrate',
  'host-service',
  'hypervisor',
  'hosts',
  'relay',
  'stream',
  'qmp',
  'guest-agent',
  'disk',
  'pager',
  'lab',
  'bench',
];

const mayImport = {
  cli: ['migrate', 'lab'],
  migrate: ['host-service', 'hypervisor', 'hosts', 'disk', 'stream'],
  'host-service': ['hypervisor', 'hosts', 'relay', 'qmp', 'guest-agent', 'disk', 'pager'],
  hypervisor: ['qmp', 'disk'],
  hosts: [],
  relay: ['stream', 'disk', 'pager', 'guest-agent'],
  stream: [],
  qmp: [],
  'guest-agent': [],
  disk: [],
  pager: ['stream'],
  lab: ['qmp', 'hosts'],
  bench: ['stream', 'qmp', 'lab', 'migrate', 'relay', 'disk', 'guest-agent'],
};

module.exports = {
  forbidden: [
    ...modules.map((from) => ({
      name: `${from}-imports`,
      comment: `${from}/ may import ${mayImport[from].join(', ') || 'no other module'}`,
      severity: 'error',
      from: { path: `^${from}/` },
      to: {
        dependencyTypesNot: ['core'],
        path: `^(${modules.filter((to) => to !== from && !mayImport[from].includes(to)).join('|')})/`,
      },
    })),
    { name: 'no-circular', severity: 'error', from: {}, to: { circular: true } },
    { name: 'no-test-code', severity: 'error', from: { path: `^(${modules.join('|')})/` }, to: { path: '^test/' } },
  ],
  options: {
    tsConfig: { fileName: 'tsconfig.json' },
    tsPreCompilationDeps: true,
    doNotFollow: { path: 'node_modules' },
  },
};
