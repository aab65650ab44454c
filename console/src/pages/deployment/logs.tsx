import { useEffect, useRef, useState } from 'preact/hooks'
import { deploymentPath } from '../../api/client'
import { Empty } from '../../parts/basics'
import { useStream } from '../../parts/loading'
import type { TabProps } from './page'

interface Line {
  id: string
  replica: string
  text: string
}

const MOST = 2000

export function Logs({ deployment: { name } }: TabProps) {
  const lines = useStream<Line>(deploymentPath(name, '/logs?stream=true&tail=500'), MOST)
  const [only, setOnly] = useState('')
  const box = useRef<HTMLPreElement>(null)
  const follows = useRef(true)
  useEffect(() => {
    if (follows.current && box.current) box.current.scrollTop = box.current.scrollHeight
  }, [lines])
  const shown = lines.filter((line) => line.text.toLowerCase().includes(only.toLowerCase()))
  return (
    <>
      <div class="row toolbar">
        <input type="search" aria-label="Only lines with" placeholder="Only lines with …" value={only} onInput={(e) => setOnly(e.currentTarget.value)} />
      </div>
      {!lines.length && <Empty>No replica has logged anything lately. Prompts and answers are never logged.</Empty>}
      <pre
        ref={box}
        class="logs"
        tabIndex={0}
        role="log"
        aria-label="Log lines"
        onScroll={(e) => {
          const { scrollTop, clientHeight, scrollHeight } = e.currentTarget
          follows.current = scrollTop + clientHeight > scrollHeight - 30
        }}
      >
        {shown.map((line) => (
          <span key={line.id} class={/ (ERROR|CRITICAL) /.test(line.text) ? 'bad' : undefined}>
            {line.text + '\n'}
          </span>
        ))}
      </pre>
    </>
  )
}
