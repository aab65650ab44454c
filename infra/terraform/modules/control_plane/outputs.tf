output "balancer" {
  description = "For the public name (module dns) and alarms (module observability)."
  value = {
    arn           = aws_lb.this.arn
    arn_suffix    = aws_lb.this.arn_suffix
    dns_name      = aws_lb.this.dns_name
    zone_id       = aws_lb.this.zone_id
    target_suffix = aws_lb_target_group.api.arn_suffix
  }
}

output "cluster" {
  value = aws_ecs_cluster.this.name
}

output "services" {
  value = [for each in aws_ecs_service.this : each.name]
}
