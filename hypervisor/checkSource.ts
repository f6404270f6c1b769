/** Whether a guest can leave its host, judged from what is known of it: nothing is asked, nothing is changed. */
import { isReadableFormat } from '../disk/index.js';
import type { MigrationStatus } from '../qmp/index.js';
import type { Finding } from './finding.js';
import type { BlockDevice, GuestInspection } from './inspection.js';

const IDLE: ReadonlySet<MigrationStatus> = new Set(['none', 'completed', 'failed', 'cancelled']);
/** Devices that are, or talk to, something on this host. */
const HOST_DEVICE = /^(vfio-|vhost-user-|vhost-scsi|usb-host|scsi-(block|generic)|ivshmem)/;
/** CPU models that mean whatever the host has. */
const HOST_CPU = /^(host|max)-/;

/** Pages that one word of QEMU's dirty log is about. */
const LOG_WORD_BYTES = 64 * 4096;

/**
 * All that speaks against migrating the guest, or for thinking twice.
 * @param hasKey - whether there is a key for a disk that QEMU encrypts
 */
export function checkSource(
  inspection: GuestInspection,
  hasKey: (disk: BlockDevice) => boolean = () => false,
): Finding[] {
  return [
    ...checkState(inspection),
    ...checkBlockers(inspection),
    ...checkHostDevices(inspection),
    ...checkCpu(inspection),
    ...checkDirtyLog(inspection),
    ...inspection.disks.filter((disk) => !hasKey(disk)).flatMap(checkDisk),
  ];
}

function checkState({ name, running, runState, migration }: GuestInspection): Finding[] {
  if (!IDLE.has(migration.status)) {
    const message = `${name} is being migrated already (${migration.status})`;
    return [
      { severity: 'refuse', code: 'VMMIG_MIGRATION_RUNNING', message, remedy: 'wait for it to end, or cancel it' },
    ];
  }
  if (running) return [];
  const remedies: Readonly<Record<string, string>> = {
    paused: 'let it run (QMP: cont)',
    inmigrate: 'it waits for a migration to arrive: look for it on the host it comes from',
    postmigrate: 'it has been migrated: look for it on the host it went to',
    shutdown: 'it has shut down: start it where it is wanted',
    'io-error': 'repair its storage and let it run (QMP: cont)',
  };
  const message = `${name} does not run: QEMU calls it "${runState}"`;
  const remedy = remedies[runState] ?? 'let it run again, or restart it';
  return [{ severity: 'refuse', code: 'VMMIG_GUEST_NOT_RUNNING', message, remedy }];
}

function checkBlockers({ name, migration }: GuestInspection): Finding[] {
  return migration.blockers.map((reason) => ({
    severity: 'refuse',
    code: 'VMMIG_MIGRATION_BLOCKED',
    message: `QEMU refuses to migrate ${name}: ${reason}`,
    remedy: 'remove the device or option it names from the guest',
  }));
}

function checkHostDevices({ deviceTypes }: GuestInspection): Finding[] {
  return deviceTypes
    .filter((type) => HOST_DEVICE.test(type))
    .map((type) => ({
      severity: 'warn',
      code: 'VMMIG_HOST_DEVICE',
      message: `the guest has a ${type} device, which needs its counterpart on the destination`,
      remedy: 'make sure the destination has the same device or back end, or unplug it first',
    }));
}

function checkCpu({ cpuType, accelerator }: GuestInspection): Finding[] {
  if (accelerator !== 'kvm' || !HOST_CPU.test(cpuType)) return [];
  const message = `the guest's CPU is the host's own (${cpuType}): a host with another CPU may lack features it uses`;
  return [{ severity: 'warn', code: 'VMMIG_CPU_MODEL', message, remedy: 'use a named CPU model that all hosts have' }];
}

/**
 * Before QEMU 9.0, TCG goes on writing without marking pages dirty once the log of a RAM block was cleared the fast way,
 * 64 pages at a time ("physmem: Fix migration dirty bitmap coherency with TCG memory access"). Writes get lost.
 */
function checkDirtyLog({ name, accelerator, qemuVersion, memory }: GuestInspection): Finding[] {
  if (accelerator === 'kvm' || qemuVersion.major >= 9) return [];
  const mapped = new Set(memory.gpaMap.map(({ block }) => block));
  const broken = memory.blocks.filter(({ name, usedBytes }) => mapped.has(name) && usedBytes % LOG_WORD_BYTES === 0);
  if (broken.length === 0) return [];
  return [
    {
      severity: 'refuse',
      code: 'VMMIG_DIRTY_LOG',
      message:
        `${name} runs under TCG in QEMU ${qemuVersion.major}.${qemuVersion.minor}, which loses writes during a migration ` +
        `when memory is a multiple of 256 KiB (${broken.map((block) => block.name).join(', ')})`,
      remedy: 'run it under KVM or QEMU 9.0 or newer, or give it 8 KiB more memory (`-m size=1048584K`)',
    },
  ];
}

function checkDisk({ driveId, nodeName, imagePath, imageUri, format, removable, isEncrypted }: BlockDevice): Finding[] {
  if (format === null || removable) return [];
  const isReadable = (imagePath ?? imageUri) !== null && isReadableFormat(format);
  if (isReadable && !isEncrypted) return [];
  const name = driveId ?? nodeName ?? 'a disk';
  const why = isEncrypted ? 'encrypted' : format;
  const message = `the image of ${name} cannot be read outside QEMU (${why}): its page cache is sent over the network`;
  return [{ severity: 'warn', code: 'VMMIG_DISK_IMAGE', message, remedy: 'keep it in a raw or qcow2 image' }];
}
