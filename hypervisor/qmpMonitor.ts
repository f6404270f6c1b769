/** What inspecting and steering a guest asks of its monitor, whoever holds that. */
import type { QmpClient } from '../qmp/index.js';

export type QmpMonitor = Pick<QmpClient, 'execute' | 'waitFor' | 'close'>;
