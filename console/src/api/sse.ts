// Server-sent events of a response that was asked for by POST.
export interface Sse {
  event: string
  data: string
  comment: string
}

export async function* read(response: Response): AsyncGenerator<Sse> {
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader()
  let rest = ''
  let event = ''
  let data: string[] = []
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return
    const lines = (rest + value).split('\n')
    rest = lines.pop()!
    for (const raw of lines) {
      const line = raw.replace(/\r$/, '')
      if (line.startsWith(':')) yield { event: '', data: '', comment: line.slice(1).trim() }
      else if (line.startsWith('event:')) event = line.slice(6).trim()
      else if (line.startsWith('data:')) data.push(line.slice(5).replace(/^ /, ''))
      else if (line === '' && data.length) {
        yield { event, data: data.join('\n'), comment: '' }
        event = ''
        data = []
      }
    }
  }
}
