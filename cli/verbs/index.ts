/** The table of verbs: parsing, help and completion all come from it. */
import { defineGroup, type VerbTable } from '../verb.js';
import { agentScan } from './agentScan.js';
import { cancel } from './cancel.js';
import { complete } from './complete.js';
import { completion } from './completion.js';
import { doctor } from './doctor.js';
import { history } from './history.js';
import { hostAdd } from './hostAdd.js';
import { hostCheck } from './hostCheck.js';
import { hostList } from './hostList.js';
import { hostRemove } from './hostRemove.js';
import { hostService } from './hostService.js';
import { labDown } from './labDown.js';
import { labSsh } from './labSsh.js';
import { labStatus } from './labStatus.js';
import { labUp } from './labUp.js';
import { list } from './list.js';
import { preflight } from './preflight.js';
import { recover } from './recover.js';
import { show } from './show.js';
import { status } from './status.js';
import { streamInspect } from './streamInspect.js';
import { switchVerb } from './switch.js';
import { teleport } from './teleport.js';

export const verbTable: VerbTable = [
  teleport,
  switchVerb,
  preflight,
  cancel,
  status,
  recover,
  list,
  history,
  show,
  doctor,
  defineGroup('host', 'Hosts of the inventory', [hostAdd, hostList, hostCheck, hostRemove]),
  defineGroup('agent', 'The agent in a guest', [agentScan]),
  defineGroup('lab', 'Two hosts on this machine, with a slow link between them', [labUp, labDown, labStatus, labSsh]),
  defineGroup('stream', "QEMU's migration stream", [streamInspect]),
  completion,
  hostService,
  complete(() => verbTable),
];
