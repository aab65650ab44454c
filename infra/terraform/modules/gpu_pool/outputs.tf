output "pool" {
  description = "The pool's entry of LORAPLEX_EC2_POOLS."
  value = {
    template = aws_launch_template.this.id
    types    = local.instance_types
    subnets  = var.subnet_ids
    spot     = var.spot
    warm     = var.warm
  }
}

output "driver_policy" {
  description = "What the task worker's role needs for this pool, as JSON."
  value       = data.aws_iam_policy_document.driver.json
}

output "security_group_id" {
  description = "Of the replicas: let it into Valkey's group."
  value       = aws_security_group.replicas.id
}
