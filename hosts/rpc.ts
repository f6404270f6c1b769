/** Remote calls between vmmig processes: JSON-RPC 2.0 over a pair of byte streams, behind a handshake. */
export { type ConnectRpcOptions, connectRpc, openRpc, type RequestOptions, type RpcClient } from './rpc/client.js';
export { type Hello, RPC_PROTOCOL } from './rpc/handshake.js';
export { RemoteError } from './rpc/remoteError.js';
export { type RpcContext, type RpcHandler, type RpcServer, type ServeRpcOptions, serveRpc } from './rpc/server.js';
