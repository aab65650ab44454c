// A fine-tuning job: its losses as they come.
import { useMemo } from 'preact/hooks'
import { call, may } from '../api/client'
import { jobs } from '../api/live'
import type { TrainingEvent, TrainingJob } from '../api/types'
import { confirm } from '../parts/asking'
import { Card, Empty, Loading, PageHead, Pill, Stat, Table } from '../parts/basics'
import { useGet, useStream } from '../parts/loading'
import { LossChart } from '../parts/loss_chart'
import { number, seconds, when } from '../parts/format'

const UNDER_WAY = ['validating_files', 'queued', 'running', 'paused']

export function TrainingPage({ id }: { id: string }) {
  const path = `/v1/fine_tuning/jobs/${encodeURIComponent(id)}`
  const { value: job, error, reload } = useGet<TrainingJob>(path, 3)
  const told = useStream<TrainingEvent>(`${path}/events?stream=true`)
  const live = jobs.value.find((each) => each.id === id)
  const losses = useMemo(() => told.filter((event) => event.data?.step != null), [told])
  if (!job) return <Loading error={error} />
  const messages = told.filter((event) => event.type !== 'metrics').reverse()
  return (
    <>
      <PageHead
        under={['/fine-tuning', 'Fine-tuning']}
        subtitle={job.model}
        title={
          <>
            {id} <Pill status={job.status} />
          </>
        }
      >
        {may('adapters') && UNDER_WAY.includes(job.status) && (
          <button
            class="danger"
            onClick={() =>
              confirm({
                title: `Cancel ${id}?`,
                text: 'What it has learned so far is thrown away.',
                verb: 'Cancel the job',
                run: async () => {
                  await call('POST', `${path}/cancel`)
                  reload()
                },
              })
            }
          >
            Cancel
          </button>
        )}
      </PageHead>
      {job.error?.message && <p class="bad">{job.error.message}</p>}
      <div class="stats">
        <Stat label="Step" value={live?.total_steps ? `${live.step} of ${live.total_steps}` : `${losses.at(-1)?.data?.step ?? '–'}`} />
        <Stat label="Loss" value={number(live?.loss ?? losses.at(-1)?.data?.train_loss, 4)} />
        <Stat label="Left" value={seconds(live?.left_s)} />
        <Stat label="Tokens learned from" value={number(job.trained_tokens, 0)} />
        <Stat label="Becomes" value={job.fine_tuned_model ?? '–'} />
        <Stat label="Finished" value={job.finished_at ? when(job.finished_at) : '–'} />
      </div>
      <Card title="Loss">
        {losses.length ? <LossChart events={losses} /> : <Empty>The first figures come with the first step.</Empty>}
      </Card>
      <Card title="What it told">
        <Table label="Messages" head={['When', 'Message']}>
          {messages.map((event) => (
            <tr key={event.id}>
              <td class="nowrap">{when(event.created_at)}</td>
              <td class={event.level === 'error' ? 'bad' : undefined}>{event.message}</td>
            </tr>
          ))}
        </Table>
      </Card>
    </>
  )
}
