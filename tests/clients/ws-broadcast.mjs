// A broadcast as one writes it with `ws`: what comes on /pub goes to everybody on /sub. For the benchmark to stand beside.
//
// Prints its address and runs until its standard input ends.
import { WebSocketServer } from 'ws';

const viewers = new Set();
const server = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate: false, backlog: 4096 });
server.on('listening', () => {
  const { address, port } = server.address();
  console.log(`${address}:${port}`);
});
server.on('connection', (socket, request) => {
  socket.on('error', () => {});
  if (request.url === '/pub') {
    socket.on('message', (data) => {
      const text = data.toString();
      for (const viewer of viewers) viewer.send(text);
    });
    return;
  }
  viewers.add(socket);
  socket.on('close', () => viewers.delete(socket));
  socket.send('welcome');
});
process.stdin.resume().on('end', () => process.exit(0));
