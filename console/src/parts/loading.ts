// What pages load.
import { useEffect, useState } from 'preact/hooks'
import { get } from '../api/client'
import { hidden } from '../api/live'

// A value of the API: loaded when the page is shown, again every `eachS` seconds, and on demand.
export function useGet<T>(path: string | null, eachS?: number) {
  const [value, setValue] = useState<T | null>(null)
  const [error, setError] = useState<string | null>(null)
  const [turn, setTurn] = useState(0)
  useEffect(() => {
    if (path === null) return
    let current = true
    const load = () =>
      get<T>(path).then(
        (found) => current && (setValue(found), setError(null)),
        (failed: Error) => current && setError(failed.message),
      )
    load()
    const timer = eachS ? setInterval(load, eachS * 1000) : undefined
    return () => {
      current = false
      clearInterval(timer)
    }
  }, [path, eachS, turn])
  return { value, error, reload: () => setTurn((n) => n + 1) }
}

const TOGETHER_MS = 50 // what comes within is shown at once

// What a stream of server-sent events tells, each thing once by its id: the latest `most`.
export function useStream<T extends { id: string }>(path: string, most = Infinity): T[] {
  const [all, setAll] = useState<T[]>([])
  const away = hidden.value
  useEffect(() => {
    if (away) return // it tells all of it again
    const source = new EventSource(path)
    let batch: T[] = []
    const show = () => {
      const fresh = batch
      batch = []
      setAll((known) => {
        const ids = new Set(known.map((each) => each.id))
        return [...known, ...fresh.filter((each) => !ids.has(each.id))].slice(-most)
      })
    }
    source.onmessage = ({ data }) => {
      if (data === '[DONE]') return source.close()
      if (!batch.length) setTimeout(show, TOGETHER_MS)
      batch.push(JSON.parse(data))
    }
    return () => source.close()
  }, [path, away])
  return all
}
