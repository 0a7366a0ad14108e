// One call over a socket of its own: the shortest way from a worker at the edge to a stream.

export async function callStream(streamUrl, functionId, data) {
  const { webSocket: socket } = await fetch(streamUrl.replace(/^ws/, 'http'), { headers: { Upgrade: 'websocket' } });
  if (!socket) return { error: { message: 'the stream server cannot be reached' } };
  socket.accept();
  try {
    return await new Promise((resolve, reject) => {
      socket.addEventListener('message', ({ data: text }) => resolve(JSON.parse(text)));
      socket.addEventListener('close', ({ code }) => reject(new Error(`the stream server closed the connection (${code})`)));
      socket.send(JSON.stringify({ type: 'call', id: '1', function_id: functionId, data }));
    });
  } finally {
    socket.close(1000);
  }
}
