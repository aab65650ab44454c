import { useState } from 'preact/hooks'
import { Link, useLocation } from 'wouter-preact'
import { call, may } from '../api/client'
import { deployments, jobs } from '../api/live'
import type { TrainingJob } from '../api/types'
import { Empty, Loading, PageHead, Pill, Table } from '../parts/basics'
import { Field, FormDialog, typed } from '../parts/forms'
import { useGet } from '../parts/loading'
import { number, seconds, when } from '../parts/format'

export function Trainings() {
  const [creating, setCreating] = useState(false)
  const { value, error } = useGet<{ data: TrainingJob[] }>('/v1/fine_tuning/jobs?limit=100', 3)
  return (
    <>
      <PageHead title="Fine-tuning">
        {may('adapters') && (
          <button class="primary" onClick={() => setCreating(true)}>
            Train an adapter
          </button>
        )}
      </PageHead>
      {!value && <Loading error={error} />}
      {value?.data.length === 0 && (
        <Empty>
          No jobs yet. Chat rows as JSON lines become an adapter: <code>loraplex finetune rows.jsonl --base DEPLOYMENT --repo REPO</code>
        </Empty>
      )}
      {!!value?.data.length && (
        <Table label="Fine-tuning jobs" head={['Job', 'Status', 'Progress', 'Loss', 'Left', 'Model', 'Becomes', 'Since']}>
          {value.data.map((job) => {
            const live = jobs.value.find((each) => each.id === job.id)
            const far = live ?? job.progress
            return (
              <tr key={job.id}>
                <td>
                  <Link href={`/fine-tuning/${job.id}`}>{job.id}</Link>
                </td>
                <td>
                  <Pill status={job.status} />
                </td>
                <td>
                  {far.total_steps ? (
                    <>
                      <progress value={far.step} max={far.total_steps} aria-label={`Progress of ${job.id}`} /> {far.step}/{far.total_steps}
                    </>
                  ) : (
                    '–'
                  )}
                </td>
                <td>{number(far.loss, 3)}</td>
                <td>{seconds(live?.left_s)}</td>
                <td class="muted">{job.model}</td>
                <td>{job.fine_tuned_model ? <Link href={`/adapters/${job.fine_tuned_model.split('/')[0]}`}>{job.fine_tuned_model}</Link> : '–'}</td>
                <td class="nowrap">{when(job.created_at)}</td>
              </tr>
            )
          })}
        </Table>
      )}
      {creating && <Create onClose={() => setCreating(false)} />}
    </>
  )
}

function Create({ onClose }: { onClose: () => void }) {
  const [, go] = useLocation()
  const submit = async (given: FormData) => {
    const rows = new FormData()
    rows.set('purpose', 'fine-tune')
    rows.set('file', given.get('rows') as File)
    const file = await call<{ id: string }>('POST', '/v1/files', rows)
    const job = await call<TrainingJob>('POST', '/v1/fine_tuning/jobs', {
      model: typed(given, 'model'),
      training_file: file.id,
      suffix: typed(given, 'repo'),
      hyperparameters: { n_epochs: Number(typed(given, 'epochs')) },
      lora: { rank: Number(typed(given, 'rank')) },
    })
    go(`/fine-tuning/${job.id}`)
    onClose()
  }
  return (
    <FormDialog title="Train an adapter" verb="Train" onClose={onClose} submit={submit}>
        <Field label="Rows (JSON lines of chats)" name="rows" type="file" accept=".jsonl,.json" required hint='{"messages": [{"role": "user", "content": …}, {"role": "assistant", "content": …}]}' />
        <Field label="Model" name="model" required list="trainable" defaultValue={deployments.value?.[0]?.name ?? ''} hint="A deployment, a base model, or an adapter to train on." />
        <datalist id="trainable">
          {(deployments.value ?? []).map((each) => (
            <option value={each.name} />
          ))}
        </datalist>
        <div class="row">
          <Field label="Repo" name="repo" required autocomplete="off" />
          <Field label="Epochs" name="epochs" type="number" min="1" max="1000" value="3" required />
          <Field label="Rank" name="rank" type="number" min="1" max="256" value="8" required />
        </div>
    </FormDialog>
  )
}
