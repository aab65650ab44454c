// Schedules and engine settings as they are written: as on the command line, one a line.
import type { Deployment } from '../../api/types'

type Schedule = Deployment['schedules'][number]

const DAYS = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun']
const SCHEDULE = /^(?:([a-z,]+) +)?(\d\d:\d\d)-(\d\d:\d\d)(?: +(\S+))? +min=(\d+)$/

export const lines = (text: string) => text.split('\n').map((line) => line.trim()).filter(Boolean)

// Throws what is wrong with it; days and zones are the API's to check.
export function readSchedule(line: string): Schedule {
  const found = SCHEDULE.exec(line.trim())
  if (!found) throw new Error(`“${line}” is no schedule: [days] HH:MM-HH:MM [time zone] min=N`)
  const [, days, start, end, timezone, least] = found
  return {
    min_replicas: Number(least), // in the API's order: what is the same is not a change
    days: days?.split(',') ?? DAYS,
    start: start!,
    end: end!,
    timezone: timezone ?? 'UTC',
  }
}

export const writeSchedule = (each: Schedule) =>
  `${each.days.join(',')} ${each.start}-${each.end} ${each.timezone} min=${each.min_replicas}`

export function readEngine(text: string): Record<string, string> {
  return Object.fromEntries(
    lines(text).map((line) => {
      const at = line.indexOf('=')
      if (at < 1) throw new Error(`“${line}”: name=value, such as dtype=float32`)
      return [line.slice(0, at).trim(), line.slice(at + 1).trim()]
    }),
  )
}

export const writeEngine = (engine: Record<string, string>) =>
  Object.entries(engine).map(([name, value]) => `${name}=${value}`).join('\n')
